-- What Nix has where the experimental feature ca-derivations is on. Without
-- these tables and the names of their migrations, a Nix with that feature wants
-- to make them when it opens a store, and cannot on a read-only disk. They stay
-- empty: no path was built where the image is mounted.

-- Nix 2.8 to 2.32.
create table Realisations (
    id integer primary key autoincrement not null,
    drvPath text not null,
    outputName text not null, -- symbolic output id, usually "out"
    outputPath integer not null,
    signatures text, -- space-separated list
    foreign key (outputPath) references ValidPaths(id) on delete cascade
);

create index IndexRealisations on Realisations(drvPath, outputName);

create table RealisationsRefs (
    referrer integer not null,
    realisationReference integer,
    foreign key (referrer) references Realisations(id) on delete cascade,
    foreign key (realisationReference) references Realisations(id) on delete restrict
);

create index IndexRealisationsRefsRealisationReference on RealisationsRefs(realisationReference);
create index IndexRealisationsRefs on RealisationsRefs(referrer);
create index IndexRealisationsRefsOnOutputPath on Realisations(outputPath);

create trigger DeleteSelfRefsViaRealisations before delete on ValidPaths
  begin
    delete from RealisationsRefs where realisationReference in (
      select id from Realisations where outputPath = old.id
    );
  end;

insert into SchemaMigrations values ('20220326-ca-derivations');

-- Nix 2.35 and later, which do not look for the migration on a read-only disk
-- but for the table.
create table BuildTraceV3 (
    id integer primary key autoincrement not null,
    drvPath text not null,
    outputName text not null, -- symbolic output id, usually "out"
    outputPath text not null,
    signatures text -- space-separated list
);

create index IndexBuildTraceV3 on BuildTraceV3(drvPath, outputName);

insert into SchemaMigrations values ('20251017-ca-derivations');
