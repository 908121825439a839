// Command yamlcheck tells what a Go program sees in YAML documents. It reads a JSON list of documents on stdin and prints
// a JSON list of answers: ["error", message] or the document as a tree in which every scalar names its Go type, so that a
// text "1" and a number 1 cannot be taken for one another.
package main

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"sort"
	"strconv"
	"time"

	"gopkg.in/yaml.v3"
)

func main() {
	var documents []string
	if err := json.NewDecoder(os.Stdin).Decode(&documents); err != nil {
		fmt.Fprintln(os.Stderr, "cannot read the list of documents:", err)
		os.Exit(1)
	}
	answers := make([]any, 0, len(documents))
	for _, document := range documents {
		var value any
		if err := yaml.Unmarshal([]byte(document), &value); err != nil {
			answers = append(answers, []any{"error", err.Error()})
			continue
		}
		answers = append(answers, tree(value))
	}
	if err := json.NewEncoder(os.Stdout).Encode(answers); err != nil {
		fmt.Fprintln(os.Stderr, "cannot print the answers:", err)
		os.Exit(1)
	}
}

func tree(value any) any {
	switch value := value.(type) {
	case nil:
		return []any{"null"}
	case bool:
		return []any{"flag", value}
	case int:
		return []any{"int", strconv.FormatInt(int64(value), 10)}
	case int64:
		return []any{"int", strconv.FormatInt(value, 10)}
	case uint64:
		return []any{"int", strconv.FormatUint(value, 10)}
	case float64:
		return []any{"float", strconv.FormatUint(math.Float64bits(value), 10)}
	case string:
		return []any{"text", value}
	case time.Time:
		return []any{"time", value.Format(time.RFC3339Nano)}
	case []any:
		items := make([]any, 0, len(value))
		for _, item := range value {
			items = append(items, tree(item))
		}
		return []any{"list", items}
	case map[string]any:
		keys := make([]string, 0, len(value))
		for key := range value {
			keys = append(keys, key)
		}
		sort.Strings(keys)
		entries := make([]any, 0, len(value))
		for _, key := range keys {
			entries = append(entries, []any{key, tree(value[key])})
		}
		return []any{"map", entries}
	default:
		// A map with keys that are not texts, or anything else that a reader of pipeline files does not expect.
		return []any{"other", fmt.Sprintf("%T %v", value, value)}
	}
}
