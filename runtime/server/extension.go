package server

import (
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/switchyard-dev/switchyard/runtime/adapters"
	"github.com/switchyard-dev/switchyard/runtime/batcher"
)

// extension tells what the Gateway API inference extension's endpoint pickers ask of a model server, under the names
// that vLLM gave it: https://gateway-api-inference-extension.sigs.k8s.io.
type extension struct {
	queue        *batcher.Batcher
	set          *adapters.Set
	adapterBytes int64 // that adapters may take; 0: nobody has said
}

// maxListed bounds the names of a list: pickers read it many times a second.
const maxListed = 512

var (
	waitingDesc = prometheus.NewDesc("vllm:num_requests_waiting",
		"Requests admitted of which rows do not yet run: they are decoded, or wait for the engine.", nil, nil)
	runningDesc = prometheus.NewDesc("vllm:num_requests_running", "Requests of which rows are in the engine.", nil, nil)
	usageDesc   = prometheus.NewDesc("vllm:kv_cache_usage_perc",
		"Memory of the revisions loaded over what adapters may take, from 0 to 1; 0 where nobody limits it.", nil, nil)
	loraDesc = prometheus.NewDesc("vllm:lora_requests_info",
		"Adapters that are served (running) and that are still loading (waiting), at a time in seconds since 1970.",
		[]string{"max_lora", "running_lora_adapters", "waiting_lora_adapters"}, nil)
)

// Describe implements prometheus.Collector.
func (e *extension) Describe(ch chan<- *prometheus.Desc) {
	for _, desc := range []*prometheus.Desc{waitingDesc, runningDesc, usageDesc, loraDesc} {
		ch <- desc
	}
}

// Collect implements prometheus.Collector.
func (e *extension) Collect(ch chan<- prometheus.Metric) {
	now := e.queue.Snapshot()
	gauge(ch, waitingDesc, float64(now.Preparing+now.Waiting.Requests))
	gauge(ch, runningDesc, float64(now.Running.Requests))
	gauge(ch, usageDesc, e.usage())
	var served, loading []string
	for _, entry := range e.set.List() {
		switch stateOf(entry) {
		case "served":
			served = append(served, entry.Name)
		case "loading":
			loading = append(loading, entry.Name)
		}
	}
	// A picker sends what is not listed to who has room for more. There is room for what this server has been given, and
	// for nothing else that it might be asked.
	gauge(ch, loraDesc, float64(time.Now().UnixMilli())/1000,
		strconv.Itoa(len(served)+len(loading)), listOf(served), listOf(loading))
}

// usage is how much of the memory that adapters may take they take.
func (e *extension) usage() float64 {
	if e.adapterBytes <= 0 {
		return 0
	}
	bytes := int64(0)
	for _, r := range e.set.Loaded() {
		bytes += r.Bytes
	}
	return min(1, float64(bytes)/float64(e.adapterBytes))
}

// listOf is names with commas between them. One that would not come out of the list again as it went in is left out.
func listOf(names []string) string {
	var list strings.Builder
	n := 0
	for _, name := range names {
		if n == maxListed {
			break
		}
		if strings.Contains(name, ",") || strings.TrimSpace(name) != name {
			continue
		}
		if n > 0 {
			list.WriteByte(',')
		}
		list.WriteString(name)
		n++
	}
	return list.String()
}
