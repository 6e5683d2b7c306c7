//! `make fuzz`

#![no_main]

#[path = "../checks/websocket_decoder.rs"]
mod websocket_decoder;

libfuzzer_sys::fuzz_target!(|data: &[u8]| websocket_decoder::check(data));
