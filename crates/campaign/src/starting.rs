//! How a campaign that has started takes in its vehicles: some at a time, each into its wave.

use std::collections::BTreeMap;

use farrier_protocol::{Sha256, Text, VehicleId};
use serde::{Deserialize, Serialize};

use crate::rollout::{Rollout, WaveSize};
use crate::selection::{Selection, VehicleFacts};

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
    /// Shares out the vehicles with these lots; `chosen` has how many others each wave, from 1, has by its query. A share of the
    /// vehicles is one of all.
    pub fn share_out(&self, mut lots: Vec<Sha256>, chosen: &BTreeMap<u32, u64>) -> Shares {
        lots.sort_unstable();
        let mut shares = Shares::default();
        let mut before = 0;
        let all = chosen.values().fold(lots.len() as u64, |sum, vehicles| sum.saturating_add(*vehicles));
        for (wave, end) in (1_u32..).zip(self.wave_ends(all)) {
            let end = usize::try_from(end).unwrap_or(usize::MAX).min(lots.len());
            let by_query = chosen.get(&wave).copied().unwrap_or(0);
            shares.vehicles.push((end.saturating_sub(before) as u64).saturating_add(by_query));
            before = end;
            if end < lots.len() {
                let last = end.checked_sub(1).and_then(|last| lots.get(last));
                // Before all lots, where the wave has none of them.
                shares.borders.push(last.copied().unwrap_or(Sha256::ZERO));
            }
        }
        shares
    }

    /// The waves that choose their vehicles by a query, each with its number from 1.
    pub fn waves_by_query(&self) -> impl Iterator<Item = (u32, &Selection)> {
        (1..).zip(&self.waves).filter_map(|(number, wave)| match &wave.size {
            WaveSize::Where(selection) => Some((number, selection)),
            WaveSize::Group(_) | WaveSize::Vehicles(_) | WaveSize::Percent(_) | WaveSize::Rest => None,
        })
    }

    /// The wave whose query has a vehicle; the first of several.
    pub fn wave_by_query(&self, vehicle: &VehicleFacts<'_>) -> Option<u32> {
        self.waves_by_query().find(|(_, selection)| selection.matches(vehicle)).map(|(number, _)| number)
    }

    /// The wave of a vehicle that no wave's query has: that of its lot while the campaign starts, else the last.
    pub fn wave_by_lot(&self, shares: Option<&Shares>, lot: &Sha256) -> u32 {
        let drawn = shares.map(|shares| shares.wave_of(lot));
        let is_counted_off = |wave: &u32| self.waves_by_query().all(|(number, _)| number != *wave);
        drawn.filter(is_counted_off).unwrap_or_else(|| self.wave_count())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::rollout::{Opening, StopRule, Wave, WaveSize};

    fn rollout(sizes: &[WaveSize]) -> Rollout {
        let wave =
            |size: &WaveSize| Wave { size: size.clone(), opens: Opening::ByHand, stop: StopRule::default() };
        Rollout { waves: sizes.iter().map(wave).collect(), ..Rollout::default() }
    }

    fn lots(vehicles: usize) -> Vec<Sha256> {
        let campaign: Text = "winter".parse().unwrap();
        (0..vehicles).map(|number| lot(&campaign, &format!("V{number}").parse().unwrap())).collect()
    }

    #[test]
    fn without_waves_all_go_in_one() {
        let shares = Rollout::default().share_out(lots(7), &BTreeMap::new());
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

    fn tagged(tag: &str) -> WaveSize {
        WaveSize::Where(format!("tag = \"{tag}\"").parse().unwrap())
    }

    #[test]
    fn who_comes_later_goes_to_the_first_wave_that_has_it_or_to_the_last() {
        let rollout = rollout(&[tagged("pilot"), tagged("dealer"), WaveSize::Vehicles(2), WaveSize::Rest]);
        let wave = |tags: Vec<&str>| {
            let by_query = rollout.wave_by_query(&VehicleFacts { tags, ..VehicleFacts::default() });
            by_query.unwrap_or_else(|| rollout.wave_by_lot(None, &lots(1)[0]))
        };
        assert_eq!([wave(vec!["dealer", "pilot"]), wave(vec!["dealer"]), wave(vec![])], [1, 2, 4]);
        // Where nobody has drawn a lot, the first wave is not everybody's.
        let nobody = rollout.share_out(Vec::new(), &BTreeMap::new());
        assert_eq!(rollout.wave_by_lot(Some(&nobody), &lots(1)[0]), 4);
    }

    proptest! {
        /// Each wave gets as many as its size says, one after the other, and no vehicle is left over. Those that a query has take
        /// nobody's place.
        #[test]
        fn each_wave_has_its_size(
            sizes in proptest::collection::vec(
                prop_oneof![
                    (1_u64..40).prop_map(WaveSize::Vehicles),
                    (1_u8..=100).prop_map(WaveSize::Percent),
                    Just(tagged("pilot")),
                ], 0..6),
            vehicles in 0_usize..120,
            pilots in 0_u64..30,
        ) {
            let sizes: Vec<_> = sizes.into_iter().chain([WaveSize::Rest]).collect();
            let rollout = rollout(&sizes);
            let first = rollout.waves_by_query().next().map(|(number, _)| number);
            let chosen: BTreeMap<u32, u64> = first.map(|number| (number, pilots)).into_iter().collect();
            let shares = rollout.share_out(lots(vehicles), &chosen);
            let mut counted = vec![0_u64; sizes.len()];
            for lot in lots(vehicles) {
                let wave = shares.wave_of(&lot);
                prop_assert_eq!(rollout.wave_by_lot(Some(&shares), &lot), wave);
                counted[wave as usize - 1] += 1;
            }
            let all = vehicles as u64 + chosen.values().sum::<u64>();
            prop_assert_eq!(shares.all(), all);
            let mut left = vehicles as u64;
            for ((wave, size), counted) in (1_u32..).zip(&sizes).zip(counted) {
                let wanted = match size {
                    WaveSize::Vehicles(number) => *number,
                    WaveSize::Percent(percent) => (all * u64::from(*percent)).div_ceil(100),
                    WaveSize::Where(_) | WaveSize::Group(_) => 0,
                    WaveSize::Rest => left,
                };
                prop_assert_eq!(counted, wanted.min(left));
                let by_query = chosen.get(&wave).copied().unwrap_or(0);
                prop_assert_eq!(shares.vehicles[wave as usize - 1], counted + by_query);
                left -= counted;
            }
        }
    }
}
