use proptest::prelude::*;

use super::*;

fn limit(campaign: &str, bytes_per_second: u64) -> CampaignLimit {
    CampaignLimit { campaign: campaign.parse().unwrap(), bytes_per_second }
}

/// What one download got, and when.
async fn download(paced: Paced, mut left: u64, begun: Instant) -> Vec<(Duration, u64)> {
    let mut portions = Vec::new();
    while left > 0 {
        let portion = paced.let_through(left).await;
        portions.push((begun.elapsed(), portion));
        left -= portion;
    }
    portions
}

/// In whatever span one looks, no more has left than may.
fn check(portions: &mut [(Duration, u64)], bytes_per_second: u64) {
    portions.sort();
    let burst = bytes_per_second / 10 + LARGEST_PORTION.min((bytes_per_second / 10).max(SMALLEST_PORTION));
    for first in 0..portions.len() {
        let mut sum = 0;
        for (at, bytes) in &portions[first..] {
            sum += bytes;
            let span = *at - portions[first].0;
            let most = u128::from(bytes_per_second) * span.as_nanos() / 1_000_000_000 + u128::from(burst);
            assert!(u128::from(sum) <= most, "{sum} bytes in {span:?} at {bytes_per_second} bytes/s");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn no_more_leaves_than_may_and_every_download_ends(
        of_server in prop::option::of(1_024_u64..3_000_000),
        of_campaign in prop::option::of(1_024_u64..3_000_000),
        lengths in prop::collection::vec((0_u64..60_000, 0_u64..2_000, any::<bool>()), 1..8),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let paces = Paces::new(of_server);
            let begun = Instant::now();
            let mut downloads = Vec::new();
            for (length, after_ms, is_of_campaign) in &lengths {
                let limit = of_campaign.filter(|_| *is_of_campaign).map(|bytes| limit("C", bytes));
                let (paced, length) = (paces.of(limit.as_ref()), *length);
                let after = Duration::from_millis(*after_ms);
                downloads.push(tokio::spawn(async move {
                    tokio::time::sleep(after).await;
                    download(paced, length, begun).await
                }));
            }
            let (mut all, mut of_the_campaign) = (Vec::new(), Vec::new());
            for (download, (length, _, is_of_campaign)) in downloads.into_iter().zip(&lengths) {
                let portions = download.await.unwrap();
                assert_eq!(portions.iter().map(|(_, bytes)| bytes).sum::<u64>(), *length);
                if *is_of_campaign {
                    of_the_campaign.extend(portions.iter().copied());
                }
                all.extend(portions);
            }
            if let Some(bytes_per_second) = of_server {
                check(&mut all, bytes_per_second);
            } else if let Some(bytes_per_second) = of_campaign {
                check(&mut of_the_campaign, bytes_per_second);
            }
        });
    }
}

#[tokio::test(start_paused = true)]
async fn the_limit_is_used_up_and_shared_by_turns() {
    let paces = Paces::new(Some(1_000_000));
    let begun = Instant::now();
    let downloads: Vec<_> = (0..50).map(|_| tokio::spawn(download(paces.of(None), 400_000, begun))).collect();
    let mut ends = Vec::new();
    for running in downloads {
        ends.push(running.await.unwrap().last().unwrap().0);
    }
    let (first, last) = (ends.iter().min().unwrap(), ends.iter().max().unwrap());
    // 20 MB at 1 MB/s, in virtual time.
    assert!((Duration::from_millis(19_500)..Duration::from_millis(20_500)).contains(last), "{last:?}");
    assert!(*first > Duration::from_secs(10), "one was served before the others: {first:?}");
}

#[tokio::test(start_paused = true)]
async fn whoever_leaves_the_line_takes_nothing_with_it() {
    let paces = Paces::new(Some(10_000));
    let begun = Instant::now();
    paces.of(None).let_through(1_000_000).await;
    for _ in 0..100 {
        let paced = paces.of(None);
        let given_up = tokio::time::timeout(Duration::from_micros(1), paced.let_through(1_000)).await;
        assert!(given_up.is_err());
    }
    paces.of(None).let_through(1_000).await;
    assert!(begun.elapsed() < Duration::from_millis(250), "{:?}", begun.elapsed());
    assert_eq!(paces.of_server.as_ref().unwrap().in_line.load(Ordering::Relaxed), 0);
}

#[tokio::test(start_paused = true)]
async fn a_campaign_keeps_its_limit_from_one_range_to_the_next_and_is_forgotten_when_it_is_idle() {
    let paces = Paces::new(None);
    let begun = Instant::now();
    for _ in 0..20 {
        paces.of(Some(&limit("C", 10_000))).let_through(1_000).await;
    }
    assert!(begun.elapsed() >= Duration::from_millis(1_700), "{:?}", begun.elapsed());
    for number in 0..200 {
        tokio::time::advance(Duration::from_secs(2)).await;
        paces.of(Some(&limit(&format!("C{number}"), 10_000))).let_through(1_000).await;
    }
    assert!(paces.of_campaigns.lock().unwrap().len() <= MANY_CAMPAIGNS);
}
