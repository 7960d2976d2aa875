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

// maxImage is more than the largest program that is executed has, in bytes.
const maxImage = 1 << 30

// OpenImage returns a copy of a program that nobody can change any more, and the
// SHA-256 of the copy: for Rules.Image.
func OpenImage(path string) (image *os.File, sum string, err error) {
	from, err := openProgram(path)
	if err != nil {
		return nil, "", err
	}
	defer from.Close()
	fd, err := memfd()
	if err != nil {
		return nil, "", fmt.Errorf("copy of %s: %w", path, err)
	}
	image = os.NewFile(uintptr(fd), path)
	sum, err = copySum(image, from, maxImage)
	if err == nil {
		_, err = unix.FcntlInt(image.Fd(), unix.F_ADD_SEALS, unix.F_SEAL_WRITE|unix.F_SEAL_GROW|unix.F_SEAL_SHRINK|unix.F_SEAL_SEAL)
	}
	if err != nil {
		image.Close()
		return nil, "", fmt.Errorf("copy of %s: %w", path, err)
	}
	return image, sum, nil
}

// openProgram opens a file, and nothing else that there may be by the time: a
// named pipe would be waited for, and a device has no end.
func openProgram(path string) (*os.File, error) {
	file, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	if info, err := file.Stat(); err != nil || !info.Mode().IsRegular() {
		file.Close()
		return nil, errors.Join(err, fmt.Errorf("%s is no regular file", path))
	}
	return file, nil
}

// copySum copies a program of less than limit bytes and returns the SHA-256 of what
// was copied.
func copySum(to io.Writer, from io.Reader, limit int64) (string, error) {
	hash := sha256.New()
	n, err := io.Copy(io.MultiWriter(to, hash), io.LimitReader(from, limit))
	if err == nil && n == limit {
		err = errors.New("too large for a program")
	}
	return hex.EncodeToString(hash.Sum(nil)), err
}

// Sum returns the SHA-256 of a program, as OpenImage does.
func Sum(path string) (string, error) {
	from, err := openProgram(path)
	if err != nil {
		return "", err
	}
	defer from.Close()
	sum, err := copySum(io.Discard, from, maxImage)
	if err != nil {
		return "", fmt.Errorf("%s: %w", path, err)
	}
	return sum, nil
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
