package conntrackdconf

import (
	"bytes"
	"unicode/utf8"

	"github.com/hashicorp/hcl/v2"
)

// A TokenType is a kind of Token.
type TokenType uint8

// The kinds of tokens.
const (
	TokenWord    TokenType = iota // a name or a value
	TokenOpen                     // {
	TokenClose                    // }
	TokenComment                  // from # to the end of the line, without it
	TokenNewline                  // \n
	TokenSpace                    // blanks, tabs, carriage returns
)

// A Token is a piece of a file. The tokens of a file, joined, are the file.
type Token struct {
	Type  TokenType
	Bytes []byte // part of the source
	Range hcl.Range
}

const blanks = " \t\r\v\f"

// Lex cuts a file into tokens. Whatever bytes it has, there are tokens for all
// of them: what makes no sense is for the parser to say.
func Lex(name string, source []byte) (tokens []Token) {
	pos := hcl.InitialPos
	for rest := source; len(rest) > 0; {
		kind, n := lexOne(rest)
		end := pos
		end.Byte += n
		if kind == TokenNewline {
			end.Line, end.Column = pos.Line+1, 1
		} else {
			end.Column += utf8.RuneCount(rest[:n])
		}
		tokens = append(tokens, Token{kind, rest[:n:n], hcl.Range{Filename: name, Start: pos, End: end}})
		pos, rest = end, rest[n:]
	}
	return tokens
}

// lexOne returns the kind and the length of the token at the start of text.
func lexOne(text []byte) (TokenType, int) {
	until := func(stop string) int {
		if n := bytes.IndexAny(text, stop); n >= 0 {
			return n
		}
		return len(text)
	}
	switch c := text[0]; {
	case c == '\n':
		return TokenNewline, 1
	case c == '{':
		return TokenOpen, 1
	case c == '}':
		return TokenClose, 1
	case c == '#':
		return TokenComment, until("\n")
	case c == '/': // a path may have braces and # in it, as conntrackd reads it
		return TokenWord, until(blanks + "\n")
	case bytes.IndexByte([]byte(blanks), c) >= 0:
		return TokenSpace, len(text) - len(bytes.TrimLeft(text, blanks))
	}
	return TokenWord, until(blanks + "\n{}#")
}
