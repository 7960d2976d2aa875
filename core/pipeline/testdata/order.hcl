pipeline "late" {
  filter "basic" {}
  source "netlink" {}
  sink "log" {}
  filter "rate" {}
  cache "memory" {}
}
pipeline "sourceless" {
  sink "log" {}
}
pipeline "sinkless" {
  source "netlink" {}
  cache "memory" {}
}
pipeline "two" {
  source "netlink" {}
  source "multicast" {
    group     = "225.0.0.50"
    interface = "eth2"
  }
  sink "log" {}
}
pipeline "empty" {
}
