# The element at fault is shown where a list or an object is written out.
variable "labels" {
  default = { good = "1", bad = "" }
}

pipeline "local" {
  source "netlink" {}
  sink "log" {
    labels = {
      good = "1"
      bad  = ""
    }
    factor = 11
    copy {
      path = "/good"
    }
    copy {
      path = (true ? "relative" : "/absolute")
    }
  }
  sink "log" {
    name   = "computed"
    labels = var.labels
    key    = upper("short")
  }
}
