//! What a tester does about a negative response.
//!
//! | NRC | decision |
//! |---|---|
//! | 78 | wait for the answer, up to a cap |
//! | 21 | the same request again, later and later, a bounded number of times |
//! | 73 | resynchronise the block counter |
//! | 24 | restart at the programming session |
//! | 22, 81 to 94 (92 and 93: voltage) | not ready: ask again within a bound |
//! | 33 to 37 | once more after the delay, then fail: a key is never guessed |
//! | 7E, 7F | restart at the first session |
//! | all others, among them 31 and 70 to 72 | this ECU fails |

use crate::uds::NegativeResponseCode;

/// What follows from a negative response; how often, is bounded by the sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// The answer will come: wait P2* again.
    WaitForAnswer,
    /// Send the same request again after a growing wait.
    RepeatLater,
    /// Repeat the block or go on with the next one, else start the download again.
    ResynchroniseBlocks,
    /// Start again at the programming session.
    RestartProgramming,
    /// Start again at the first session.
    RestartSession,
    /// Conditions are not correct yet: ask again within the bound.
    NotReady,
    /// One more security access after the ECU's delay.
    RetrySecurityOnce,
    /// This ECU fails.
    Fail,
}

/// The decision for a negative response code.
pub fn decide(code: NegativeResponseCode) -> Decision {
    match code.value() {
        0x78 => Decision::WaitForAnswer,
        0x21 => Decision::RepeatLater,
        0x73 => Decision::ResynchroniseBlocks,
        0x24 => Decision::RestartProgramming,
        // 81 to 94 are the specific forms of 22: engine runs, speed too high, voltage.
        0x22 | 0x81..=0x94 => Decision::NotReady,
        0x33..=0x37 => Decision::RetrySecurityOnce,
        0x7E | 0x7F => Decision::RestartSession,
        _ => Decision::Fail,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_of_the_table_is_decided_as_it_says() {
        let rows: [(&[u8], Decision); 8] = [
            (&[0x78], Decision::WaitForAnswer),
            (&[0x21], Decision::RepeatLater),
            (&[0x73], Decision::ResynchroniseBlocks),
            (&[0x24], Decision::RestartProgramming),
            (&[0x22, 0x81, 0x92, 0x93, 0x94], Decision::NotReady),
            (&[0x33, 0x34, 0x35, 0x36, 0x37], Decision::RetrySecurityOnce),
            (&[0x7E, 0x7F], Decision::RestartSession),
            (&[0x10, 0x11, 0x12, 0x13, 0x14, 0x31, 0x70, 0x71, 0x72, 0xFF], Decision::Fail),
        ];
        for (codes, decision) in rows {
            for code in codes {
                assert_eq!(decide(NegativeResponseCode::from(*code)), decision, "{code:#04X}");
            }
        }
    }
}
