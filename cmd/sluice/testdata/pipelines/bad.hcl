pipeline "local" {
  source "netlink" {
  }
  filter "basic" {
    address {
      ignore = ["192.0.2.0/24", "192.0.2.300"]
    }
    adress {
    }
  }
  sink "kernel" {
  }
}
