pipelines = ["node.hcl"]

test "in order" {
  stage = "local.filter.basic"
  input {
    events = <<-EOT
      [NEW] tcp src=10.0.0.7 dst=192.0.2.80 sport=1 dport=443 mark=7
      [NEW] tcp src=10.0.0.8 dst=192.0.2.80 sport=2 dport=443
      [NEW] tcp src=10.0.0.9 dst=192.0.2.80 sport=3 dport=443
    EOT
  }
  expect {
    events = <<-EOT
      [NEW] tcp src=10.0.0.7 mark=8
      [NEW] tcp src=10.0.0.9
      [NEW] tcp src=10.0.0.8
    EOT
    absent = "dport=443"
    count  = 4
  }
}

test "in any order" {
  stage = "local.filter.basic"
  input {
    events = <<-EOT
      tcp src=10.0.0.7 dst=192.0.2.80 sport=1 dport=443
      tcp src=10.0.0.8 dst=192.0.2.80 sport=2 dport=443
    EOT
  }
  expect {
    any_order = true
    events    = <<-EOT
      sport=3
      tcp
    EOT
  }
}

test "others" {
  stage = "local.filter.basic"
  input {
    events = <<-EOT
      tcp src=10.0.0.7 dst=192.0.2.80 sport=1 dport=443
      tcp src=10.0.0.8 dst=192.0.2.80 sport=2 dport=443
    EOT
  }
  expect {
    others = true
    events = "sport=2"
  }
  expect {
    others = true
    events = "sport=3"
  }
}

test "a count alone" {
  stage = "local.filter.basic"
  input {
    events = "tcp src=10.0.0.7 dst=192.0.2.80"
  }
  expect {
    count = 0
  }
}

test "statistics" {
  stage = "local.filter.basic"
  expect {
    statistics = { "local.filter.basic" = { events_in = 3 } }
  }
}

test "an unknown statistic" {
  stage = "local.filter.basic"
  expect {
    statistics = { "local.filter.basic" = { evnts_in = 3 } }
  }
}

test "an unknown stage" {
  stage = "local.filter.nope"
  expect {
    count = 1
  }
}

test "a sink" {
  stage = "local.sink.multicast"
  expect {
    count = 1
  }
}

test "after a stage that is not tested" {
  stage = "local.filter.basic"
  expect {
    after = "local.cache.memory"
    count = 1
  }
}

test "no recording" {
  pipeline = "local"
  input {
    recording = "events.txt"
  }
  expect {
    count = 1
  }
}
