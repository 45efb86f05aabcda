// Gives triggers of type kafka to KEDA's own scaler: a JSON list of their metadata on standard input, a JSON list of
// what KEDA makes of them on standard output, in the same order. With the argument "lag" it also asks Kafka for the
// lag, as the operator does at every interval.
//
// k8s/check compiles it together with KEDA's unchanged kafka_scaler.go and scaler.go, out of KEDA's Go module: the package
// they are in holds all of KEDA's scalers, and would take far longer.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"

	"github.com/go-logr/logr"
	"github.com/kedacore/keda/v2/pkg/scalers/scalersconfig"
)

type answer struct {
	Error string `json:"error,omitempty"`
	Lag   int64  `json:"lag"`
	// More than none: the operator starts pods where there are none.
	Active bool `json:"active"`
}

func main() {
	var triggers []map[string]string
	if err := json.NewDecoder(os.Stdin).Decode(&triggers); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	ask := len(os.Args) > 1 && os.Args[1] == "lag"
	answers := make([]answer, len(triggers))
	for i, metadata := range triggers {
		answers[i] = answerTo(metadata, ask)
	}
	if err := json.NewEncoder(os.Stdout).Encode(answers); err != nil {
		os.Exit(1)
	}
}

func answerTo(metadata map[string]string, ask bool) answer {
	config := &scalersconfig.ScalerConfig{TriggerMetadata: metadata}
	if !ask {
		if _, err := parseKafkaMetadata(config, logr.Discard()); err != nil {
			return answer{Error: err.Error()}
		}
		return answer{}
	}
	ctx := context.Background()
	scaler, err := NewKafkaScaler(ctx, config)
	if err != nil {
		return answer{Error: err.Error()}
	}
	defer func() { _ = scaler.Close(ctx) }()
	values, active, err := scaler.GetMetricsAndActivity(ctx, "lag")
	if err != nil {
		return answer{Error: err.Error()}
	}
	return answer{Lag: values[0].Value.Value(), Active: active}
}
