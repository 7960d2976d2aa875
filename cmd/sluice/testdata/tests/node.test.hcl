test "a whole pipeline, with what passes on the way" {
  pipeline = "local"

  input {
    events = file("events.txt")
  }

  expect {
    events = "[UPDATE] tcp ESTABLISHED"
  }

  expect {
    after  = "local.filter.basic"
    events = <<-EOT
      [NEW]    tcp SYN_SENT
      [UPDATE] tcp ESTABLISHED
    EOT
  }

  expect {
    cache      = "local.cache.memory"
    events     = "tcp 120 ESTABLISHED dport=443"
    statistics = { "local.filter.basic" = { events_in = 3, events_out = 2 } }
  }
}

test "a replay sweeps what it does not name" {
  stage = "local.cache.memory"

  step "two flows" {
    input {
      events = <<-EOT
        tcp src=10.0.0.1 dst=192.0.2.1 sport=1 dport=2
        tcp src=10.0.0.2 dst=192.0.2.1 sport=1 dport=2
      EOT
    }
    expect {
      events    = "src=10.0.0.2\nsrc=10.0.0.1"
      any_order = true
    }
  }

  step "a dump has one" {
    input {
      replay = true
      events = "update tcp src=10.0.0.2 dst=192.0.2.1 sport=1 dport=2"
    }
    expect {
      absent = "src=10.0.0.2"
      events = "[DESTROY] tcp src=10.0.0.0/24"
    }
  }

  step "the cache replays" {
    replay = "local.cache.memory"
    expect {
      events = "[UPDATE] src=10.0.0.2"
    }
  }
}

test "what comes together leaves a cache as one" {
  stage = "local.cache.memory"

  input {
    together = true
    events   = file("events.txt")
  }

  expect {
    events = <<-EOT
      [NEW] tcp ESTABLISHED
      [NEW] udp
    EOT
  }
}
