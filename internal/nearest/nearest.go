// Package nearest finds what somebody who mistyped a word meant.
package nearest

// Word is the candidate that the fewest letters put in, left out, exchanged or swapped with their
// neighbour turn the word into, the first of several; "" where none is near enough to be what was
// meant. Near enough means at most a third of the letters, and one more.
func Word(word string, candidates []string) string {
	best, least := "", len(word)/3+2 // a short word is like too many others
	for _, c := range candidates {
		if c == "" || c == word {
			continue
		}
		if d := distance([]rune(word), []rune(c)); d < least && d < max(len(word), len(c)) {
			best, least = c, d
		}
	}
	return best
}

// Hint is Word as the end of a sentence that says what is unknown; "" where nothing is near. It
// begins with a semicolon, so that it fits behind any message.
func Hint(word string, candidates []string) string {
	if w := Word(word, candidates); w != "" {
		return "; did you mean " + w + "?"
	}
	return ""
}

// distance is that of Damerau and Levenshtein, of which no letter is changed twice. Three rows are
// enough: a swap looks two back. It counts letters and not bytes.
func distance(a, b []rune) int {
	var before []int
	last := make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := range a {
		row := make([]int, len(b)+1)
		row[0] = i + 1
		for j := range b {
			same := 1
			if a[i] == b[j] {
				same = 0
			}
			row[j+1] = min(last[j]+same, last[j+1]+1, row[j]+1)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				row[j+1] = min(row[j+1], before[j-1]+1)
			}
		}
		before, last = last, row
	}
	return last[len(b)]
}
