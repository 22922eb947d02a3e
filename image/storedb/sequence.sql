-- The highest id in ValidPaths, where autoincrement goes on.
insert into sqlite_sequence (name, seq) values ('ValidPaths', :seq);
