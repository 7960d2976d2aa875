variable "peer" {
  default = "192.168.100.300"
}

locals {
  networks = ["10.0.0.0/8", "10.0.0.0/33"]
}

pipeline "local" {
  source "netlink" {}
  filter "basic" {
    address {
      ignore = [
        "127.0.0.1",
        "192.168.0.256",
        var.peer,
        "2001:db8::/129",
      ]
    }
  }
  filter "basic" {
    name = "computed"
    address {
      accept = local.networks
    }
  }
  sink "multicast" {
    group     = "225.0.0"
    interface = "eth2"
    address   = var.peer
  }
}

pipeline "peers" {
  source "multicast" {
    group       = "10.0.0.1"
    interface   = "eth2"
    accept_from = ["192.168.100.0/24", "192.168.100.0"]
  }
  sink "log" {}
}
