package confine

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// maxImage is the largest program that is executed, in bytes.
const maxImage = 1 << 30

// OpenImage returns a copy of a program that nobody can change any more, and the
// SHA-256 of the copy: for Rules.Image.
func OpenImage(path string) (image *os.File, sum string, err error) {
	from, err := os.Open(path)
	if err != nil {
		return nil, "", err
	}
	defer from.Close()
	fd, err := memfd()
	if err != nil {
		return nil, "", fmt.Errorf("copy of %s: %w", path, err)
	}
	image = os.NewFile(uintptr(fd), path)
	hash := sha256.New()
	n, err := io.Copy(io.MultiWriter(image, hash), io.LimitReader(from, maxImage))
	if err == nil && n == maxImage {
		err = errors.New("too large for a program")
	}
	if err == nil {
		_, err = unix.FcntlInt(image.Fd(), unix.F_ADD_SEALS, unix.F_SEAL_WRITE|unix.F_SEAL_GROW|unix.F_SEAL_SHRINK|unix.F_SEAL_SEAL)
	}
	if err != nil {
		image.Close()
		return nil, "", fmt.Errorf("copy of %s: %w", path, err)
	}
	return image, hex.EncodeToString(hash.Sum(nil)), nil
}

// Sum returns the SHA-256 of a program, as OpenImage does.
func Sum(path string) (string, error) {
	from, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer from.Close()
	hash := sha256.New()
	if _, err := io.Copy(hash, io.LimitReader(from, maxImage)); err != nil {
		return "", fmt.Errorf("%s: %w", path, err)
	}
	return hex.EncodeToString(hash.Sum(nil)), nil
}

// memfd asks for an executable file: since Linux 6.3 a system may have others by
// default (vm.memfd_noexec), and before, the flag is unknown.
func memfd() (int, error) {
	const flags = unix.MFD_CLOEXEC | unix.MFD_ALLOW_SEALING
	fd, err := unix.MemfdCreate("plugin", flags|unix.MFD_EXEC)
	if err == unix.EINVAL {
		fd, err = unix.MemfdCreate("plugin", flags)
	}
	return fd, err
}
