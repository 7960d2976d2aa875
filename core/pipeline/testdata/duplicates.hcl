runner {}
runner {}

variable "a" { default = 1 }
variable "a" { default = 2 }
locals {
  x = 1
}
locals {
  x = 2
}

pipeline "local" {
  source "netlink" {}
  filter "basic" {}
  filter "basic" {}
  filter "rate" { name = "basic" }
  sink "log" {}
  sink "log" { name = "second" }
}
pipeline "local" {
  source "netlink" {}
  sink "log" {}
}
