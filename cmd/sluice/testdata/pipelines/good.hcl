runner {
  name = "fw1"
}

variable "protocols" {
  default = ["tcp"]
}

pipeline "local" {
  source "netlink" {
  }
  filter "basic" {
    protocol {
      accept = var.protocols
    }
  }
  sink "kernel" {
  }
}
