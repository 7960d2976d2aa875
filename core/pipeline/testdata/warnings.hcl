# -var-file more.vars
pipeline "one" {
  source "multicast" {
    group          = "225.0.0.51"
    interface      = "eth2"
    request_resync = true
  }
  sink "kernel" {}
}
pipeline "two" {
  source "netlink" {}
  sink "multicast" {
    group     = "225.0.0.50"
    interface = "eth2"
  }
  sink "multicast" {
    name      = "again"
    group     = "225.0.0.50"
    interface = "eth2"
  }
  sink "kernel" {}
}
