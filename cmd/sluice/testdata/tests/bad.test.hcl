pipelines = ["node.hcl"]

test "bad" {
  stage   = "local.filter.basic"
  pipline = "x"
  role    = "king"
  input {
    events = <<-EOT
      [NEW] tcpp src=10.0.0.7 dst=192.0.2.80

      [NEW] tcp src=10.0.0.8
    EOT
    owner  = "x"
    origin = "moon"
  }
  input {}
  expect {}
}

test "bad" {
  expect {
    events = "tcp nope=1"
    after  = "a"
    cache  = "b"
  }
}

test "nothing" {
  stage = "x"
}
