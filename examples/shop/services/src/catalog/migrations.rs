//! The steps from an empty database to the present one. A step that was released is never changed; a new one follows.

/// Applied in order, each in one transaction; the number of a step is its position, from 1.
pub(super) const MIGRATIONS: &[&str] = &[
    "CREATE TABLE products (
        id text PRIMARY KEY,
        name text NOT NULL,
        description text NOT NULL,
        price_cents bigint NOT NULL CHECK (price_cents >= 0)
    )",
    "INSERT INTO products (id, name, description, price_cents) VALUES
        ('anchor', 'Anchor', 'Holds 12 tons in sand, folds flat', 18900),
        ('buoy', 'Mooring buoy', 'Orange, with a steel ring at both ends', 4900),
        ('compass', 'Compass', 'Steering compass with a lit card', 12900),
        ('fairlead', 'Fairlead', 'Bronze, polished, guides a line without chafing it', 7400),
        ('lantern', 'Lantern', 'Masthead light, visible for three miles', 3900),
        ('rope', 'Mooring rope', 'Twelve strands, 20 m, spliced eye', 5900)
    ON CONFLICT (id) DO NOTHING",
];
