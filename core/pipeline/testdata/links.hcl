pipeline "one" {
  source "multicast" {
    group          = "225.0.0.50"
    interface      = "eth2"
    request_resync = true
  }
  sink "log" {}
}
pipeline "two" {
  source "multicast" {
    group     = "225.0.0.50"
    interface = "eth2"
  }
  sink "log" {}
}
