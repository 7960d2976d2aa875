pipelin "local" {
}

pipeline "local" {
  source "netlink" {}
  filtre "basic" {}
  filter "basic" {
    adress {
      ignore = ["127.0.0.1"]
    }
  }
  sink "log" {}
}
