pipeline "local" {
  source "netlink" {}
  sink "log" {}
}
pipeline "unknown" {
  source "multicast" {
    group     = "225.0.0.50"
    interface = "eth2"
  }
  sink "kernel" {
    scope = "locl"
  }
}
pipeline "own" {
  source "multicast" {
    group     = "225.0.0.51"
    interface = "eth2"
  }
  sink "kernel" {
    scope = "own"
    netns = "/run/netns/b"
  }
  sink "kernel" {
    name  = "peers"
    netns = "/run/netns/c"
    scope = "unknown"
  }
  sink "kernel" {
    name  = "elsewhere"
    netns = "/run/netns/d"
    scope = "local"
  }
}
