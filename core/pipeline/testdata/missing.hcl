pipeline "local" {
  source "netlink" {}
  sink "multicast" {
    port = 3780
  }
  sink "log" {
    copy {
      size = 1
    }
  }
  sink "multicast" {
    name      = "null"
    group     = null
    interface = "eth2"
  }
}
