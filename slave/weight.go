package slave

// What a slave answers has a weight: ItemCost for each item, and the bytes of its texts, which is about what it takes in memory.
// An answer has a bound, whatever a tree has in it: what is beyond that is left out, as each call of Tree says, and is asked for
// by another call.
const (
	ItemCost = 128
	// MaxSurvey bounds what the answers of one Survey weigh: 20,000 entries with ordinary names go into it.
	MaxSurvey = 3 << 20
	// MaxFound bounds what the answers of one Find weigh.
	MaxFound = 1 << 20
	// MaxGroups bounds what the answers of one Groups weigh.
	MaxGroups = 2 << 20
	// MaxGroup is what one inode in it weighs at the most: an answer with room for one more was not cut short.
	MaxGroup = ItemCost + MaxFoundPath + MaxGroupNames*nameCost
	// MaxFoundPath is the longest path that Find and Groups tell of. What has a longer one is found by other means, or shipped.
	MaxFoundPath = 64 << 10
	// MaxRanges bounds the ranges that are received of one upload.
	MaxRanges = 8192
)

// Weight is that of an entry in the answer of a Survey.
func (e *EntryState) Weight() int64 { return int64(ItemCost + len(e.Name) + len(e.Target)) }

// Weight is that of a directory in the answer of a Survey, its entries included.
func (s *DirState) Weight() int64 {
	n := int64(ItemCost)
	for i := range s.Entries {
		n += s.Entries[i].Weight()
	}
	return n
}

// Weight is that of an inode in the answer of a Find.
func (f *Found) Weight() int64 { return int64(ItemCost + len(f.Path)) }

// nameCost is what a name counts beyond its length in lists of names.
const nameCost = 32

// Weight is that of an inode in the answer of a Groups.
func (g *Group) Weight() int64 {
	n := int64(ItemCost)
	for _, name := range g.Names {
		n += int64(nameCost + len(name))
	}
	return n
}

// Within is how many of the items, from the first on, are together no heavier than most: one at least, if there is any.
func Within[T any](items []T, most int64, weight func(*T) int64) int {
	n, sum := 0, int64(0)
	for n < len(items) {
		if sum += weight(&items[n]); n > 0 && sum > most {
			break
		}
		n++
	}
	return n
}

// Room is what is left of a survey's bound while its entries are gathered.
type Room int64

// Takes counts an entry, and tells whether there was room for it.
func (r *Room) Takes(e *EntryState) bool {
	*r -= Room(e.Weight())
	return *r >= 0
}
