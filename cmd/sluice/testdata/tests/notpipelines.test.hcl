pipelines = ["../pipelines/bad.hcl"]

test "never" {
  pipeline = "local"
  expect {
    count = 0
  }
}
