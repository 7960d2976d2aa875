pipeline "local" {
  source "netlink" {}

  filter "basic" {
    protocol {
      accept = ["tcp"]
    }
  }

  cache "memory" {
    limit = 100
  }

  filter "basic" {
    name = "state"
    state {
      accept = ["ESTABLISHED"]
    }
  }

  sink "multicast" {
    group     = "225.0.0.50"
    interface = "lo"
  }
}
