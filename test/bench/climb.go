package main

// tries is how often a rate is tried before the climb ends at it: the machine
// may have been busy with something else.
const tries = 3

// climb raises a rate by a quarter a time, from first to last, until something
// is lost, and returns the highest at which nothing was. step makes a load at a
// rate and says what rate it came to and whether all of it arrived. A rate is
// passed when one of its tries lost nothing and came within a tenth of it. If
// the load can't be made at a rate, the climb ends with what was made.
func climb(first, last int, step func(rate int) (made float64, whole bool, err error)) (best float64, err error) {
	for rate := first; rate <= last; rate = rate * 5 / 4 {
		passed := false
		for try := 0; try < tries && !passed; try++ {
			made, whole, err := step(rate)
			if err != nil {
				return best, err
			}
			if !whole {
				continue
			}
			best = max(best, min(made, float64(rate)))
			passed = made >= 0.9*float64(rate)
		}
		if !passed {
			break
		}
	}
	return best, nil
}
