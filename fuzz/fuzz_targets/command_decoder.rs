//! `make fuzz`

#![no_main]

#[path = "../checks/command_decoder.rs"]
mod command_decoder;

libfuzzer_sys::fuzz_target!(|data: &[u8]| command_decoder::check(data));
