-- Where the tables and indexes of the empty database have their root pages.
select name, rootpage from sqlite_schema where rootpage > 0;
