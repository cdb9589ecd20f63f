//! That the watch over every page sees what it is there for.

use farrier_system_tests::browser::Browser;
use farrier_system_tests::testbed::Testbed;
use farrier_system_tests::until;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_goes_wrong_on_a_page_does_not_go_unseen() {
    let testbed = Testbed::start().await;
    let browser = Browser::at(testbed.console()).await;
    let elsewhere = testbed.console().replace("127.0.0.1", "localhost");
    for (what, told) in [
        ("console.error('a hoof is broken')", "a hoof is broken"),
        ("setTimeout(() => { throw new Error('a nail is missing') })", "a nail is missing"),
        ("document.body.setAttribute('style', 'color: red')", "violates the policy: style-src"),
        (
            "document.body.append(Object.assign(document.createElement('script'), { text: '1' }))",
            "violates the policy: script-src",
        ),
        ("fetch(arguments[0]).catch(() => {})", "violates the policy: connect-src"),
        ("location.href = arguments[0]", "a request to another origin: https://localhost"),
        ("fetch('/nothing').catch(() => {})", "status of 404"),
    ] {
        browser.goto("/sign-in").await;
        assert_eq!(browser.faults().await, [""; 0], "before {what}");
        browser.run(what, vec![elsewhere.clone().into()]).await;
        until(&format!("{what} is seen"), async || {
            browser.faults().await.iter().any(|fault| fault.contains(told)).then_some(())
        })
        .await;
    }
    browser.goto("/sign-in").await;
    assert_eq!(browser.barriers().await, [""; 0]);
    browser.run("document.querySelector('label').remove()", vec![]).await;
    let barriers = browser.barriers().await;
    assert!(barriers.iter().any(|barrier| barrier.starts_with("label (critical)")), "{barriers:?}");
    browser.end().await;
    testbed.stop().await;
}

/// In a thread of its own, so that it ends as a test does that fails: by a panic, with its runtime.
#[test]
fn a_test_that_fails_leaves_no_browser_behind() {
    let failing = std::thread::spawn(|| {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let browser = Browser::at("https://127.0.0.1:1").await;
            let process = browser.process().expect("the browser says which process it is");
            assert!(process.exists());
            std::panic::panic_any(process);
        });
    });
    let process = *failing.join().unwrap_err().downcast::<std::path::PathBuf>().unwrap();
    assert!(!process.exists(), "{} lives on", process.display());
}
