#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| farrier_server::fuzzing::mqtt_input(data));
