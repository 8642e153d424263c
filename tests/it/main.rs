//! Whole-process tests: a real bearerd on free ports between a scripted token service and a recording upstream.

mod proxy;
mod support;
