//! One run in full, to be read: every write with its reason and note, every status that changed.

use fairlead_testkit::builders::{environment, release, workload};
use fairlead_testkit::sim::{Checked, Sim};

use crate::world;

fn life_of_an_environment(sim: &mut Sim) -> Checked {
    world::platform(sim)?;
    let mut all = world::workloads(sim)?;
    sim.create(&environment("shop", "production").done())?;
    sim.create(&release("shop", "production", 1, &all).done())?;
    sim.settle()?;
    all.remove(2);
    all[1] = workload("shop", "cart").image("cart:2").done();
    sim.create(&release("shop", "production", 2, &all).done())?;
    sim.settle()?;
    if let Some(first) = world::release(sim, "production-1") {
        sim.create(
            &release("shop", "production", 3, &[])
                .rolls_back_to(&first)
                .done(),
        )?;
    }
    sim.settle()?;
    sim.delete("Environment", "shop", "production")?;
    sim.settle()
}

#[test]
fn the_life_of_an_environment() {
    let mut sim = Sim::new(0);
    if let Err(violation) = life_of_an_environment(&mut sim) {
        panic!("{violation}");
    }
    insta::assert_snapshot!(sim.log.join("\n"));
}

#[test]
fn a_seed_gives_the_same_run() {
    let run = |seed| {
        let mut sim = Sim::new(seed);
        sim.faults = fairlead_testkit::sim::Faults::SOME;
        if let Err(violation) = life_of_an_environment(&mut sim) {
            panic!("{violation}");
        }
        sim.log
    };
    assert_eq!(run(3), run(3));
    assert_ne!(run(3), run(4));
}
