-- The tables of a Nix store's database, schema version 10, as Nix 2.35 and
-- later make them; Nix has read them since version 2.0. Text that SQLite keeps
-- (everything inside a statement) is Nix's own.

create table ValidPaths (
    id               integer primary key autoincrement not null,
    path             text unique not null,
    hash             text not null, -- base16 representation
    registrationTime integer not null,
    deriver          text,
    narSize          integer,
    ultimate         integer, -- null implies "false"
    sigs             text, -- space-separated
    ca               text -- if not null, an assertion that the path is content-addressed; see ValidPathInfo
);

create table Refs (
    referrer  integer not null,
    reference integer not null,
    primary key (referrer, reference),
    foreign key (referrer) references ValidPaths(id) on delete cascade,
    foreign key (reference) references ValidPaths(id) on delete restrict
);

create index IndexReference on Refs(reference);

create trigger DeleteSelfRefs before delete on ValidPaths
  begin
    delete from Refs where referrer = old.id and reference = old.id;
  end;

create table DerivationOutputs (
    drv  integer not null,
    id   text not null, -- symbolic output id, usually "out"
    path text not null,
    primary key (drv, id),
    foreign key (drv) references ValidPaths(id) on delete cascade
);

create index IndexDerivationOutputs on DerivationOutputs(path);

-- Nix 2.26 to 2.34 want to make this table when they open a store, and cannot
-- on a read-only disk.
create table SchemaMigrations (migration text primary key not null);

-- Up to version 2.34 Nix also has IndexReferrer on Refs(referrer), which no
-- query uses: the primary key's index does what it could. This is the name of
-- the migration that drops it.
insert into SchemaMigrations values ('20260309-drop-redundant-indexreferrer');
