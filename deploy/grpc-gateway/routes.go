package main

import (
	"cmp"
	"net/http"
	"slices"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// How long a call may take. The service answers that it took too long before its caller gives up.
const (
	callTimeout = 14 * time.Second
	listTimeout = 5 * time.Minute
)

// route is a documented path and its verbs.
type route struct {
	segments  []string
	verbs     map[string]*method
	variables int
}

type method struct {
	timeout time.Duration // none for a watch
}

type routes []*route

// newRoutes reads the paths of the protos; those with fewer variables come first.
func newRoutes(files ...protoreflect.FileDescriptor) routes {
	found := map[string]*route{}
	for _, file := range files {
		methods := file.Services().Get(0).Methods()
		for i := range methods.Len() {
			verb, path := verbAndPath(methods.Get(i))
			if found[path] == nil {
				found[path] = &route{strings.Split(path, "/"), map[string]*method{}, strings.Count(path, "{")}
			}
			found[path].verbs[verb] = &method{timeoutOf(methods.Get(i))}
		}
	}
	all := routes{}
	for _, one := range found {
		all = append(all, one)
	}
	slices.SortFunc(all, func(a, b *route) int { return cmp.Compare(a.variables, b.variables) })
	return all
}

func verbAndPath(method protoreflect.MethodDescriptor) (verb, path string) {
	switch rule := proto.GetExtension(method.Options(), annotations.E_Http).(*annotations.HttpRule).Pattern.(type) {
	case *annotations.HttpRule_Get:
		return http.MethodGet, rule.Get
	case *annotations.HttpRule_Post:
		return http.MethodPost, rule.Post
	case *annotations.HttpRule_Patch:
		return http.MethodPatch, rule.Patch
	case *annotations.HttpRule_Delete:
		return http.MethodDelete, rule.Delete
	default:
		panic(string(method.FullName()) + " has a verb that is not known here")
	}
}

func timeoutOf(method protoreflect.MethodDescriptor) time.Duration {
	switch {
	case method.Name() == "WatchTickets":
		return 0
	case method.IsStreamingServer():
		return listTimeout
	default:
		return callTimeout
	}
}

// find is the method of a verb and a path, nil where the path has no such verb; and the verbs it has, "" for no such path.
func (all routes) find(verb, path string) (found *method, allow string) {
	segments := strings.Split(path, "/")
	for _, one := range all {
		if slices.EqualFunc(one.segments, segments, matches) {
			return one.verbs[verb], one.allow()
		}
	}
	return nil, ""
}

func matches(pattern, segment string) bool {
	return pattern == segment || strings.HasPrefix(pattern, "{") && segment != ""
}

func (r *route) allow() string {
	words := []string{}
	for _, verb := range []string{http.MethodGet, http.MethodPost, http.MethodPatch, http.MethodDelete} {
		if r.verbs[verb] == nil {
			continue
		}
		if words = append(words, verb); verb == http.MethodGet {
			words = append(words, http.MethodHead)
		}
	}
	return strings.Join(words, ", ")
}
