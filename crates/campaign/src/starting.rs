//! How a campaign that has started takes in its vehicles: some at a time, each into its wave.

use farrier_protocol::{Sha256, Text, VehicleId};
use serde::{Deserialize, Serialize};

use crate::rollout::Rollout;

/// How far a campaign has taken in the vehicles that it starts with.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Starting {
    /// How they are shared out; none until all have drawn their lots.
    pub shares: Option<Shares>,
    /// The last vehicle that was taken in, in the order of the ids; empty before the first.
    pub after: String,
}

/// How the vehicles of a campaign are shared out among its waves: by chance, since the first wave shall tell something of the
/// last, and by the same one each time.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shares {
    /// The last lot of each wave after which others come, in their order.
    borders: Vec<Sha256>,
    /// How many vehicles each wave gets, from the first.
    pub vehicles: Vec<u64>,
}

/// The lot that a vehicle draws in a campaign.
pub fn lot(campaign: &Text, vehicle_id: &VehicleId) -> Sha256 {
    Sha256::of(format!("{campaign}/{vehicle_id}").as_bytes())
}

impl Shares {
    /// The wave of the vehicle with this lot, from 1.
    pub fn wave_of(&self, lot: &Sha256) -> u32 {
        let before = self.borders.partition_point(|border| border < lot);
        u32::try_from(before).unwrap_or(u32::MAX).saturating_add(1)
    }

    /// How many vehicles there are in all.
    pub fn all(&self) -> u64 {
        self.vehicles.iter().fold(0, |sum, vehicles| sum.saturating_add(*vehicles))
    }
}

impl Rollout {
    /// Shares out the vehicles with these lots.
    pub fn share_out(&self, mut lots: Vec<Sha256>) -> Shares {
        lots.sort_unstable();
        let mut shares = Shares::default();
        let mut before = 0;
        for end in self.wave_ends(lots.len() as u64) {
            let end = usize::try_from(end).unwrap_or(usize::MAX).min(lots.len());
            shares.vehicles.push(end.saturating_sub(before) as u64);
            before = end;
            if end < lots.len() {
                shares.borders.extend(end.checked_sub(1).and_then(|last| lots.get(last)));
            }
        }
        shares
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::rollout::{Opening, StopRule, Wave, WaveSize};

    fn rollout(sizes: &[WaveSize]) -> Rollout {
        let wave = |size: &WaveSize| Wave { size: *size, opens: Opening::ByHand, stop: StopRule::default() };
        Rollout { waves: sizes.iter().map(wave).collect(), ..Rollout::default() }
    }

    fn lots(vehicles: usize) -> Vec<Sha256> {
        let campaign: Text = "winter".parse().unwrap();
        (0..vehicles).map(|number| lot(&campaign, &format!("V{number}").parse().unwrap())).collect()
    }

    #[test]
    fn without_waves_all_go_in_one() {
        let shares = Rollout::default().share_out(lots(7));
        assert_eq!(shares.vehicles, [7]);
        assert!(lots(7).iter().all(|lot| shares.wave_of(lot) == 1));
    }

    #[test]
    fn the_lots_of_one_campaign_are_not_those_of_another() {
        let vehicle = "V1".parse().unwrap();
        let lot = |campaign: &str| lot(&campaign.parse().unwrap(), &vehicle);
        assert_eq!(lot("winter"), lot("winter"));
        assert_ne!(lot("winter"), lot("spring"));
    }

    proptest! {
        /// Each wave gets as many as its size says, one after the other, and no vehicle is left over.
        #[test]
        fn each_wave_has_its_size(
            sizes in proptest::collection::vec(
                prop_oneof![(1_u64..40).prop_map(WaveSize::Vehicles), (1_u8..=100).prop_map(WaveSize::Percent)], 0..6),
            vehicles in 0_usize..120,
        ) {
            let sizes: Vec<_> = sizes.into_iter().chain([WaveSize::Rest]).collect();
            let rollout = rollout(&sizes);
            let shares = rollout.share_out(lots(vehicles));
            let mut counted = vec![0_u64; sizes.len()];
            for lot in lots(vehicles) {
                counted[shares.wave_of(&lot) as usize - 1] += 1;
            }
            prop_assert_eq!(&counted, &shares.vehicles);
            prop_assert_eq!(shares.all(), vehicles as u64);
            let mut left = vehicles as u64;
            for (size, counted) in sizes.iter().zip(counted) {
                let wanted = match size {
                    WaveSize::Vehicles(number) => *number,
                    WaveSize::Percent(percent) => (vehicles as u64 * u64::from(*percent)).div_ceil(100),
                    WaveSize::Rest => left,
                };
                prop_assert_eq!(counted, wanted.min(left));
                left -= counted;
            }
        }
    }
}
