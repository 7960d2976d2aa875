pipeline "local" {
  source "netlink" {}
  filter "basic" {
    protocol {
      accept = ["tcp", "tpc"]
    }
    state {
      accept = concat(["ESTABLISHED"], ["OPEN"])
      ignore = ["CLOSED"]
    }
  }
  sink "log" {
    fields = [for f in ["a"] : f]
    labels = { good = "1", bad = "" }
    factor = 11
    copy {
      path = "/good"
    }
    copy {
      path = "bad"
      size = "2 apples"
    }
  }
}
