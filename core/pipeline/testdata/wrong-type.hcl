pipeline "local" {
  source "netlink" {
    buffer_size = ["2MiB"]
    coalesce    = {}
  }
  cache "memory" {
    limit = "many"
    hold  = "perhaps"
  }
  filter "basic" {
    name = 5
    address {
      ignore = { a = 1 }
    }
  }
  sink "multicast" {
    group     = "225.0.0.50"
    interface = "eth2"
    port      = 70000
  }
}
