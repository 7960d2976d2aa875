# Tests of primary-backup.hcl, run by: sluice test pipelines

test "TCP is replicated, other protocols are not" {
  stage = "local.filter.basic"

  input {
    events = <<-EOT
      [NEW]     tcp SYN_SENT    src=10.0.0.7 dst=192.0.2.80 sport=40000 dport=443 [UNREPLIED]
      [UPDATE]  tcp ESTABLISHED src=10.0.0.7 dst=192.0.2.80 sport=40000 dport=443
      [NEW]     udp             src=10.0.0.7 dst=192.0.2.53 sport=5353  dport=53
      [NEW]     icmp            src=10.0.0.7 dst=192.0.2.80
      [DESTROY] tcp             src=10.0.0.7 dst=192.0.2.80 sport=40000 dport=443
    EOT
  }

  expect {
    events = <<-EOT
      [NEW]     tcp SYN_SENT    src=10.0.0.7
      [UPDATE]  tcp ESTABLISHED src=10.0.0.7
      [DESTROY] tcp             src=10.0.0.7
    EOT
  }
}

test "connections of the firewalls themselves are not replicated" {
  stage = "local.filter.basic"

  input {
    events = <<-EOT
      # From one of them, to one of them, and to the virtual address.
      [NEW] tcp src=192.168.0.1 dst=192.0.2.80    sport=40000 dport=443
      [NEW] tcp src=10.0.0.7    dst=192.168.1.1   sport=40001 dport=22
      [NEW] tcp src=10.0.0.7    dst=192.168.0.100 sport=40002 dport=22
      # Forwarded, and translated to the virtual address: its real ends are elsewhere.
      [NEW] tcp src=10.0.0.7    dst=192.0.2.80    sport=40003 dport=443 reply-dst=192.168.0.100
    EOT
  }

  expect {
    events = "[NEW] tcp sport=40003"
  }
}

test "the backup keeps the primary's flows aside until it takes over" {
  pipeline = "peers"

  step "the primary reports flows" {
    input {
      owner  = "192.168.100.200"
      events = <<-EOT
        [NEW]     tcp 60     SYN_RECV    src=10.0.0.7 dst=192.0.2.80 sport=40000 dport=443
        [UPDATE]  tcp 431999 ESTABLISHED src=10.0.0.7 dst=192.0.2.80 sport=40000 dport=443 [ASSURED]
        [NEW]     tcp 60     SYN_RECV    src=10.0.0.8 dst=192.0.2.80 sport=40001 dport=443
        [DESTROY] tcp                    src=10.0.0.8 dst=192.0.2.80 sport=40001 dport=443
      EOT
    }
    expect {
      count = 0
    }
    expect {
      cache  = "peers.cache.memory"
      events = "tcp ESTABLISHED src=10.0.0.7 owner=192.168.100.200"
    }
  }

  step "it takes over" {
    role = "primary"
    expect {
      events = "[UPDATE] tcp ESTABLISHED src=10.0.0.7 [ASSURED]"
    }
    expect {
      cache = "peers.cache.memory"
      count = 0
    }
  }

  step "a second time there is nothing left" {
    role = "primary"
    expect {
      count = 0
    }
  }
}
