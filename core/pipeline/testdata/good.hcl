# -var level=debug
runner {
  name        = "fw1"
  plugin_path = ["/opt/plugins", abspath("/usr/lib/sluice/plugins")]

  control {
    group = "adm"
  }
  log {
    level = var.level
  }
}

variable "level" {
  type = string
}

variable "sync_interface" {
  default = "eth2"
}

locals {
  own = concat(["127.0.0.1"], [for n in range(2) : cidrhost(local.net, 100 + n)])
  net = "192.168.100.0/24"
}

pipeline "local" {
  source "netlink" {
    buffer_size = "2MiB"
    coalesce    = "2ms"
  }
  filter "basic" {
    protocol {
      accept = ["tcp"]
    }
    address {
      ignore = local.own
    }
  }
  cache "memory" {
    limit = 65535
  }
  filter "basic" {
    name = "state"
    state {
      accept = ["ESTABLISHED", "CLOSED"]
    }
  }
  sink "multicast" {
    group     = "225.0.0.50"
    port      = 3780
    interface = var.sync_interface
    checksum  = true
  }
}

pipeline "peers" {
  source "multicast" {
    group          = "225.0.0.50"
    interface      = var.sync_interface
    accept_from    = [local.net]
    request_resync = true
  }
  cache "memory" {
    hold = true
  }
  sink "kernel" {
    scope         = "local"
    purge_timeout = "15s"
  }
  sink "log" {
    factor = 1.5
    labels = { b = "2", a = 1 }
    copy {
      path = "/a"
      size = 5
    }
    copy {
      path = "/b"
      size = "5KiB"
    }
  }
}
