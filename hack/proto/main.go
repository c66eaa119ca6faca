// Command proto runs protoc's plugins over a .proto file without protoc: "proto ROOT FILE OUT PLUGIN…" compiles FILE,
// a path within ROOT, and writes what each plugin makes of it into OUT, under the same path.
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/bufbuild/protocompile"
	"github.com/bufbuild/protocompile/protoutil"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/pluginpb"
)

func main() {
	const least = 5
	if len(os.Args) < least {
		fmt.Fprintln(os.Stderr, "usage: proto ROOT FILE OUT PLUGIN…")
		os.Exit(2)
	}
	root, file, out, plugins := os.Args[1], os.Args[2], os.Args[3], os.Args[4:]
	if err := generate(context.Background(), root, file, out, plugins); err != nil {
		fmt.Fprintln(os.Stderr, "proto:", err)
		os.Exit(1)
	}
}

func generate(ctx context.Context, root, file, out string, plugins []string) error {
	compiler := protocompile.Compiler{
		Resolver:       &protocompile.SourceResolver{ImportPaths: []string{root}},
		SourceInfoMode: protocompile.SourceInfoStandard, // comments, which the plugins copy
	}
	files, err := compiler.Compile(ctx, file)
	if err != nil {
		return err
	}
	request := &pluginpb.CodeGeneratorRequest{
		FileToGenerate: []string{file},
		Parameter:      proto.String("paths=source_relative"),
	}
	for _, compiled := range files {
		request.ProtoFile = append(request.ProtoFile, protoutil.ProtoFromFileDescriptor(compiled))
	}
	for _, plugin := range plugins {
		if err := run(ctx, plugin, request, out); err != nil {
			return fmt.Errorf("%s: %w", plugin, err)
		}
	}
	return nil
}

// run has a plugin answer, as protoc would: a request on its standard input, the files on its standard output.
func run(ctx context.Context, plugin string, request *pluginpb.CodeGeneratorRequest, out string) error {
	raw, err := proto.Marshal(request)
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, plugin)
	cmd.Stdin, cmd.Stderr = bytes.NewReader(raw), os.Stderr
	answer, err := cmd.Output()
	if err != nil {
		return err
	}
	var response pluginpb.CodeGeneratorResponse
	if err := proto.Unmarshal(answer, &response); err != nil {
		return err
	}
	if response.Error != nil {
		return errors.New(response.GetError())
	}
	for _, made := range response.GetFile() {
		path := filepath.Join(out, made.GetName())
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, []byte(made.GetContent()), 0o644); err != nil {
			return err
		}
	}
	return nil
}
