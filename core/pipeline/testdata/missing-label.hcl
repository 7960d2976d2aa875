pipeline {
  source "netlink" {}
  sink "log" {}
}
pipeline "a" "b" {
  source "netlink" {}
  sink "log" {}
}
pipeline "c" {
  source {}
  sink "log" {}
}
