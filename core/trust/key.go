package trust

import (
	"crypto/ed25519"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"strings"
)

// PrivateKey reads a key to sign with: PEM of PKCS #8, without a password, as
// `openssl genpkey -algorithm ed25519` writes it.
func PrivateKey(path string) (ed25519.PrivateKey, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	const how = "make one with: openssl genpkey -algorithm ed25519 -out FILE"
	block, _ := pem.Decode(text)
	switch {
	case block == nil:
		return nil, fmt.Errorf("%s: no key in PEM: %s", path, how)
	case block.Type == "PUBLIC KEY":
		return nil, fmt.Errorf("%s: a public key signs nothing: name the private one", path)
	case block.Type != "PRIVATE KEY":
		return nil, fmt.Errorf("%s: a key of the type %q, not a private one of PKCS #8 without a password: %s", path, block.Type, how)
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	private, ok := key.(ed25519.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("%s: not a key of ed25519: %s", path, how)
	}
	return private, nil
}

// PublicKey parses a key to check signatures with: what `openssl pkey -pubout`
// writes, or the one line of it between the first and the last.
func PublicKey(text string) (ed25519.PublicKey, error) {
	der, err := base64.StdEncoding.DecodeString(strings.TrimSpace(text))
	if block, _ := pem.Decode([]byte(text)); block != nil {
		if block.Type == "PRIVATE KEY" {
			return nil, errors.New("it is a private key, which belongs in no configuration: take `openssl pkey -in FILE -pubout`")
		}
		der, err = block.Bytes, nil
	}
	if err != nil {
		return nil, errors.New("it is neither PEM nor a line of base64")
	}
	key, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		return nil, errors.New("it is no public key as `openssl pkey -pubout` writes it")
	}
	public, ok := key.(ed25519.PublicKey)
	if !ok {
		return nil, errors.New("it is not of ed25519")
	}
	return public, nil
}

// Line writes a public key as PublicKey takes it, in one line.
func Line(key ed25519.PublicKey) string {
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return "" // never: it is of ed25519
	}
	return base64.StdEncoding.EncodeToString(der)
}

// message is what is signed. The name is in it, so that nobody can pass one plugin
// that was signed for another.
func message(plugin, sum string) []byte {
	return []byte("sluice.lock 1\n" + plugin + "\n" + sum + "\n")
}

// Sign returns the signature of a plugin's program.
func Sign(key ed25519.PrivateKey, plugin, sum string) []byte {
	return ed25519.Sign(key, message(plugin, sum))
}

// SignedBy says whether the entry has a signature of one of the keys.
func (e Entry) SignedBy(keys []ed25519.PublicKey) bool {
	for _, key := range keys {
		if ed25519.Verify(key, message(e.Plugin, e.SHA256), e.Signature) {
			return true
		}
	}
	return false
}
