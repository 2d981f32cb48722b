// Command yaml-golden writes what kubectl makes of each YAML input in inputs.json.
//
// A manifest must mean here what it means to kubectl. kubectl splits a file into documents with apimachinery's YAML
// reader and turns each into JSON with sigs.k8s.io/yaml; this program does exactly that and records
// the JSON or that the input is an error, and whether the strict reading refuses it. The Python tests read table.json only.
//
//	go run . < inputs.json > table.json
package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"

	apiyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"
)

type inputs struct {
	Scalars   []string          `json:"scalars"`
	Keys      []string          `json:"keys"`
	Documents map[string]string `json:"documents"`
	Streams   map[string]string `json:"streams"`
}

type row struct {
	Input string `json:"input"`
	// JSON is the text sigs.k8s.io/yaml produced, absent if it refused the input.
	JSON  json.RawMessage `json:"json,omitempty"`
	Error string          `json:"error,omitempty"`
	// Strict says that YAMLToJSONStrict takes it too: no key stands twice (it counts overridden merge keys as twice).
	Strict bool `json:"strict,omitempty"`
}

func convert(text string) row {
	converted, err := yaml.YAMLToJSON([]byte(text))
	if err != nil {
		return row{Input: text, Error: err.Error()}
	}
	_, strict := yaml.YAMLToJSONStrict([]byte(text))
	return row{Input: text, JSON: converted, Strict: strict == nil}
}

func split(text string) []row {
	reader := apiyaml.NewYAMLReader(bufio.NewReader(bytes.NewBufferString(text)))
	rows := []row{}
	for {
		document, err := reader.Read()
		if errors.Is(err, io.EOF) {
			return rows
		}
		if err != nil {
			return append(rows, row{Error: err.Error()})
		}
		rows = append(rows, convert(string(document)))
	}
}

func main() {
	var given inputs
	decoder := json.NewDecoder(os.Stdin)
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&given); err != nil {
		panic(err)
	}
	table := map[string]any{}
	scalars, keys := map[string]row{}, map[string]row{}
	for _, scalar := range given.Scalars {
		scalars[scalar] = convert("v: " + scalar + "\n")
	}
	for _, key := range given.Keys {
		keys[key] = convert(key + ": v\n")
	}
	documents, streams := map[string]row{}, map[string][]row{}
	for name, text := range given.Documents {
		documents[name] = convert(text)
	}
	for name, text := range given.Streams {
		streams[name] = split(text)
	}
	table["scalars"], table["keys"], table["documents"], table["streams"] = scalars, keys, documents, streams
	encoder := json.NewEncoder(os.Stdout)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", " ")
	if err := encoder.Encode(table); err != nil {
		panic(err)
	}
}
