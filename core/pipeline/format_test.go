package pipeline

import "testing"

func TestFormat(t *testing.T) {
	for name, c := range map[string]struct{ in, want string }{
		"empty":          {"", ""},
		"only blank":     {"\n\n\n", ""},
		"alignment":      {"runner{\nname=\"a\"\nlock_file   = \"b\"\n}", "runner {\n  name      = \"a\"\n  lock_file = \"b\"\n}\n"},
		"labels":         {"pipeline local {\n}\n", "pipeline \"local\" {\n}\n"},
		"lone template":  {"a = \"${var.x}\"\n", "a = var.x\n"},
		"call":           {"a = \"${ lower(var.x) }\"\n", "a = lower(var.x)\n"},
		"real template":  {"a = \"${var.x}:${var.y}\"\n", "a = \"${var.x}:${var.y}\"\n"},
		"nested":         {"a = \"${format(\"x\", var.y)}\"\n", "a = \"${format(\"x\", var.y)}\"\n"},
		"line ends":      {"a = 1\r\n# c\r\nb = 2\r\n", "a = 1\n# c\nb = 2\n"},
		"trailing space": {"a = 1   \n# c   \n", "a = 1\n# c\n"},
		"comments stay":  {"# one\n\n# two\nlocals {\n  # three\n  a = 1 # four\n\n  # five\n}\n", "# one\n\n# two\nlocals {\n  # three\n  a = 1 # four\n\n  # five\n}\n"},
		"block comment":  {"/* one\n\n\n   two */\n\n\na = 1\n", "/* one\n\n\n   two */\n\na = 1\n"},
		"blank lines":    {"\n\nlocals {\n\n\n  a = 1\n\n\n\n  b = 2\n\n\n}\n\n\n\nlocals {\n}\n\n\n", "locals {\n  a = 1\n\n  b = 2\n}\n\nlocals {\n}\n"},
		"heredoc":        {"a = <<EOT\none  \n\n\n\ntwo\nEOT\n", "a = <<EOT\none  \n\n\n\ntwo\nEOT\n"},
		"no newline":     {"a = 1", "a = 1\n"},
		"last comment":   {"a = 1\n# end", "a = 1\n# end\n"},
		"list":           {"a = [\n\n\"x\",\n\"y\"\n]\n", "a = [\n\n  \"x\",\n  \"y\"\n]\n"},
		"bad syntax":     {"a = = \n\n\n", "a = = \n\n\n"},
	} {
		t.Run(name, func(t *testing.T) {
			got := string(Format([]byte(c.in)))
			if got != c.want {
				t.Errorf("got\n%q, want\n%q", got, c.want)
			}
			if again := string(Format([]byte(got))); again != got {
				t.Errorf("formatting again makes\n%q of\n%q", again, got)
			}
		})
	}
}

// Formatting must never change what a file says, and a second time nothing.
func FuzzFormat(f *testing.F) {
	for _, text := range []string{"a = 1", "pipeline x {\n source y {}\n}", "a = <<-E\n  x\n  E\n", "a = \"${b}\" // c\n", "/**/\n\n\n#x\r\n"} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		_, diags := Parse("x", text)
		once := Format(text)
		if diags.HasErrors() {
			return
		}
		if _, diags := Parse("x", once); diags.HasErrors() {
			t.Fatalf("Format(%q) = %q, which does not parse: %v", text, once, diags)
		}
		if twice := Format(once); string(twice) != string(once) {
			t.Fatalf("Format(%q) = %q, and again %q", text, once, twice)
		}
	})
}
