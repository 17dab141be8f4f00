//! lab
use std::path::Path;
use std::time::Duration;
use concertina_trainer::importance::Criterion;
use concertina_trainer::net::Net;
use concertina_trainer::watch::{Lines, Watch};
use concertina_trainer::workshop::*;
use concertina_trainer::*;
fn main() -> anyhow::Result<()> {
    let mut watch = Lines::new(std::io::stdout(), Duration::from_secs(15));
    let shop = Workshop::open(Path::new("/work/tm/smollm2-135m-instruct-q4_1.gguf"), Path::new("/work/tm/train/smollm2"), Path::new("/work/tm/data"), Effort::default())?;
    let net = Net::load(&shop.model)?;
    let order = shop.order(&net, Criterion::Effect, &mut watch)?;
    let harm = shop.harm(&net, &mut watch)?;
    let anchors = harm.anchors(anchor_count(net.layers.len()));
    watch.say(&format!("{harm:?}\nanchors {anchors:?}"));
    let net = net.permuted(&order)?;
    let levels = shop.levels(&net, &anchors, &mut watch)?;
    let eval = shop.held_out(16)?;
    for sub in &levels {
        let s = evaluate::surprise(&net, &sub.layers, None, &eval)?;
        watch.say(&format!("{} {:.3} {:?}", sub.level, s.perplexity(), s.by_kind));
    }
    Ok(())
}
