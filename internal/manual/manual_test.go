package manual

import "testing"

func TestForRoff(t *testing.T) {
	for _, c := range []struct{ name, in, want string }{
		{"heading", "## Syntax\n", "## SYNTAX\n\n"},
		{"page's link", "see [wire](../docs/wire.md#a) and [RFC](https://x/)", "see wire and [RFC](https://x/)\n"},
		{"comment", "a\n<!-- generated\nhere -->\nb", "a\nb\n"},
		{"code stays", "```hcl\n| [a](b)\n## c\n```", "```\n| [a](b)\n## c\n```\n"},
		{"table", "| a | b |\n| --- | --- |\n| `x\\|y` | one | two |\n", "\n`x|y`\n: one; two\n\n\n"},
	} {
		if got := forRoff(c.in); got != c.want {
			t.Errorf("%s: %q, not %q", c.name, got, c.want)
		}
	}
}
